// Processing element: passes activations to the right and weights down, keeps a sum.
module os_element #(
    parameter ACT_BITS = 8,
    parameter WEIGHT_BITS = 8,
    parameter SUM_BITS = 24,
    parameter USE_DSP = 1
) (
    input  wire                          clock,
    input  wire                          reset,
    input  wire                          first_in,  // with the first operands of a sum
    input  wire                          last_in,   // with its last operands
    input  wire signed [ACT_BITS-1:0]    act_in,
    input  wire signed [WEIGHT_BITS-1:0] weight_in,
    output reg                           first_out,
    output reg                           last_out,  // the sum is complete
    output reg  signed [ACT_BITS-1:0]    act_out,
    output reg  signed [WEIGHT_BITS-1:0] weight_out,
    output wire signed [SUM_BITS-1:0]    result     // the sum while it is complete, else 0
);
    wire signed [ACT_BITS+WEIGHT_BITS-1:0] product;
    reg  signed [SUM_BITS-1:0]             sum;
    wire signed [SUM_BITS-1:0]             sum_before = first_in ? {SUM_BITS{1'b0}} : sum;

    signed_product #(.A_BITS(ACT_BITS), .B_BITS(WEIGHT_BITS), .USE_DSP(USE_DSP)) multiplier (
        .a(act_in), .b(weight_in), .product(product)
    );

    assign result = last_out ? sum : {SUM_BITS{1'b0}};

    always @(posedge clock) begin
        first_out <= first_in && !reset;
        last_out <= last_in && !reset;
        act_out <= act_in;
        weight_out <= weight_in;
        // Signed words extend when they are added.
        /* verilator lint_off WIDTH */
        sum <= sum_before + product;
        /* verilator lint_on WIDTH */
    end
endmodule

// ROWS x COLUMNS processing elements: activations enter on the left, weights at the top. In a
// column one sum a cycle is complete; it leaves on the bus of the column.
module os_grid #(
    parameter ROWS = 4,
    parameter COLUMNS = 4,
    parameter ACT_BITS = 8,
    parameter WEIGHT_BITS = 8,
    parameter SUM_BITS = 24,
    parameter USE_DSP = 1
) (
    input  wire                           clock,
    input  wire                           reset,
    input  wire [COLUMNS-1:0]             first,
    input  wire [COLUMNS-1:0]             last,
    input  wire [ROWS*ACT_BITS-1:0]       acts,
    input  wire [COLUMNS*WEIGHT_BITS-1:0] weights,
    output wire                           first_result,  // one of column 0 is on its bus
    output wire [COLUMNS*SUM_BITS-1:0]    results
);
    wire [ACT_BITS-1:0]    act    [0:ROWS*(COLUMNS+1)-1];
    wire [WEIGHT_BITS-1:0] weight [0:(ROWS+1)*COLUMNS-1];
    wire                   opens  [0:(ROWS+1)*COLUMNS-1];
    wire                   closes [0:(ROWS+1)*COLUMNS-1];
    // A row reads the one above: no loop, though all rows are in one array.
    /* verilator lint_off UNOPTFLAT */
    wire [SUM_BITS-1:0]    bus    [0:(ROWS+1)*COLUMNS-1];
    wire [ROWS:0]          complete;  // in column 0, from the rows above
    /* verilator lint_on UNOPTFLAT */

    assign complete[0] = 1'b0;
    assign first_result = complete[ROWS];

    genvar r, c;
    generate
        for (c = 0; c < COLUMNS; c = c + 1) begin : column_end
            assign weight[c] = weights[c*WEIGHT_BITS +: WEIGHT_BITS];
            assign opens[c] = first[c];
            assign closes[c] = last[c];
            assign bus[c] = {SUM_BITS{1'b0}};
            assign results[c*SUM_BITS +: SUM_BITS] = bus[ROWS*COLUMNS+c];
        end
        for (r = 0; r < ROWS; r = r + 1) begin : row
            assign act[r*(COLUMNS+1)] = acts[r*ACT_BITS +: ACT_BITS];
            assign complete[r+1] = complete[r] | closes[(r+1)*COLUMNS];
            for (c = 0; c < COLUMNS; c = c + 1) begin : column
                wire [SUM_BITS-1:0] result;
                assign bus[(r+1)*COLUMNS+c] = bus[r*COLUMNS+c] | result;
                os_element #(
                    .ACT_BITS(ACT_BITS), .WEIGHT_BITS(WEIGHT_BITS), .SUM_BITS(SUM_BITS),
                    .USE_DSP(USE_DSP)
                ) element (
                    .clock(clock),
                    .reset(reset),
                    .first_in(opens[r*COLUMNS+c]),
                    .last_in(closes[r*COLUMNS+c]),
                    .act_in(act[r*(COLUMNS+1)+c]),
                    .weight_in(weight[r*COLUMNS+c]),
                    .first_out(opens[(r+1)*COLUMNS+c]),
                    .last_out(closes[(r+1)*COLUMNS+c]),
                    .act_out(act[r*(COLUMNS+1)+c+1]),
                    .weight_out(weight[(r+1)*COLUMNS+c]),
                    .result(result)
                );
            end
        end
    endgenerate
endmodule

// Walks through the folds of a product: all rows with the same columns, then the next columns.
module os_control #(
    parameter ROWS = 4,
    parameter COLUMNS = 4,
    parameter ADDRESS_BITS = 16
) (
    input  wire                    clock,
    input  wire                    reset,
    input  wire                    start,         // with the sizes of the product
    input  wire [ADDRESS_BITS-1:0] inner_count,
    input  wire [ADDRESS_BITS-1:0] row_folds,
    input  wire [ADDRESS_BITS-1:0] column_folds,
    input  wire                    result_valid,  // of column 0
    output wire                    read,          // of row 0 and of column 0
    output reg                     first,         // of the operands of a fold
    output wire                    last,
    output reg  [ADDRESS_BITS-1:0] act_address,
    output reg  [ADDRESS_BITS-1:0] weight_address,
    output reg  [ADDRESS_BITS-1:0] result_address,
    output reg                     done
);
    localparam IDLE = 2'd0, STREAM = 2'd1, DRAIN = 2'd2, FINISH = 2'd3;
    localparam DRAIN_STEPS = ROWS + COLUMNS - 2;
    localparam LATENCY = 2;  // of a memory and of the last processing element

    reg [1:0]              state;
    reg [ADDRESS_BITS-1:0] step;         // left in this state
    reg [ADDRESS_BITS-1:0] row_left;     // folds after this one
    reg [ADDRESS_BITS-1:0] column_left;
    reg [ADDRESS_BITS-1:0] weight_base;  // first weight of these columns

    wire last_step = (step == 0);
    wire fold_ends = last_step && (state == DRAIN || (state == STREAM && DRAIN_STEPS == 0));

    assign read = (state == STREAM);
    assign last = read && last_step;

    always @(posedge clock) begin
        done <= 1'b0;
        step <= step - 1'b1;
        if (read) begin
            first <= 1'b0;
            act_address <= act_address + 1'b1;
            weight_address <= weight_address + 1'b1;
        end
        if (result_valid) result_address <= result_address + 1'b1;

        case (state)
            IDLE: if (start) begin
                state <= STREAM;
                step <= inner_count - 1'b1;
                first <= 1'b1;
                row_left <= row_folds - 1'b1;
                column_left <= column_folds - 1'b1;
                act_address <= 0;
                weight_address <= 0;
                weight_base <= 0;
                result_address <= 0;
            end
            STREAM: if (last_step && DRAIN_STEPS != 0) begin
                state <= DRAIN;
                step <= DRAIN_STEPS - 1;
            end
            FINISH: if (last_step) begin
                state <= IDLE;
                done <= 1'b1;
            end
            default: ;
        endcase

        if (fold_ends) begin
            state <= STREAM;
            step <= inner_count - 1'b1;
            first <= 1'b1;
            if (row_left != 0) begin
                row_left <= row_left - 1'b1;
                weight_address <= weight_base;
            end else if (column_left != 0) begin
                row_left <= row_folds - 1'b1;
                column_left <= column_left - 1'b1;
                act_address <= 0;
                weight_base <= weight_base + inner_count;
                weight_address <= weight_base + inner_count;
            end else begin
                state <= FINISH;
                step <= LATENCY - 1;
            end
        end

        if (reset) begin
            state <= IDLE;
            done <= 1'b0;
        end
    end
endmodule

// The array with its control: one product from start to done.
module systolic_os #(
    parameter ROWS = @ROWS,
    parameter COLUMNS = @COLUMNS,
    parameter ACT_BITS = @ACT_BITS,
    parameter WEIGHT_BITS = @WEIGHT_BITS,
    parameter SUM_BITS = @SUM_BITS,
    parameter USE_DSP = @USE_DSP,
    parameter ADDRESS_BITS = @ADDRESS_BITS
) (
    input  wire                            clock,
    input  wire                            reset,
    input  wire                            start,
    input  wire [ADDRESS_BITS-1:0]         inner_count,
    input  wire [ADDRESS_BITS-1:0]         row_folds,
    input  wire [ADDRESS_BITS-1:0]         column_folds,
    output wire                            done,
    // Activations, a memory per row of the array.
    output wire [ROWS-1:0]                 act_read,
    output wire [ROWS*ADDRESS_BITS-1:0]    act_address,
    input  wire [ROWS*ACT_BITS-1:0]        act_data,
    // Weights, a memory per column.
    output wire [COLUMNS-1:0]              weight_read,
    output wire [COLUMNS*ADDRESS_BITS-1:0] weight_address,
    input  wire [COLUMNS*WEIGHT_BITS-1:0]  weight_data,
    // Results, a memory per column: the rows of a fold one after the other.
    output wire [COLUMNS-1:0]              result_valid,
    output wire [COLUMNS*ADDRESS_BITS-1:0] result_address,
    output wire [COLUMNS*SUM_BITS-1:0]     result_data
);
    wire                    read, first, last;
    wire [ADDRESS_BITS-1:0] row_address, column_address, first_result_address;
    reg                     first_held, last_held;  // until the data of the memories are there
    wire [COLUMNS-1:0]      firsts, lasts;
    wire                    first_result;

    os_control #(.ROWS(ROWS), .COLUMNS(COLUMNS), .ADDRESS_BITS(ADDRESS_BITS)) control (
        .clock(clock),
        .reset(reset),
        .start(start),
        .inner_count(inner_count),
        .row_folds(row_folds),
        .column_folds(column_folds),
        .result_valid(first_result),
        .read(read),
        .first(first),
        .last(last),
        .act_address(row_address),
        .weight_address(column_address),
        .result_address(first_result_address),
        .done(done)
    );

    lane_skew #(.LANES(ROWS), .BITS(1)) act_reads (
        .clock(clock), .reset(reset), .head(read), .lanes(act_read)
    );
    lane_skew #(.LANES(ROWS), .BITS(ADDRESS_BITS)) act_addresses (
        .clock(clock), .reset(reset), .head(row_address), .lanes(act_address)
    );
    lane_skew #(.LANES(COLUMNS), .BITS(1)) weight_reads (
        .clock(clock), .reset(reset), .head(read), .lanes(weight_read)
    );
    lane_skew #(.LANES(COLUMNS), .BITS(ADDRESS_BITS)) weight_addresses (
        .clock(clock), .reset(reset), .head(column_address), .lanes(weight_address)
    );
    lane_skew #(.LANES(COLUMNS), .BITS(1)) column_firsts (
        .clock(clock), .reset(reset), .head(first_held), .lanes(firsts)
    );
    lane_skew #(.LANES(COLUMNS), .BITS(1)) column_lasts (
        .clock(clock), .reset(reset), .head(last_held), .lanes(lasts)
    );
    lane_skew #(.LANES(COLUMNS), .BITS(1)) result_valids (
        .clock(clock), .reset(reset), .head(first_result), .lanes(result_valid)
    );
    lane_skew #(.LANES(COLUMNS), .BITS(ADDRESS_BITS)) result_addresses (
        .clock(clock), .reset(reset), .head(first_result_address), .lanes(result_address)
    );

    always @(posedge clock) begin
        first_held <= read && first;
        last_held <= last && !reset;
    end

    os_grid #(
        .ROWS(ROWS), .COLUMNS(COLUMNS), .ACT_BITS(ACT_BITS), .WEIGHT_BITS(WEIGHT_BITS),
        .SUM_BITS(SUM_BITS), .USE_DSP(USE_DSP)
    ) grid (
        .clock(clock),
        .reset(reset),
        .first(firsts),
        .last(lasts),
        .acts(act_data),
        .weights(weight_data),
        .first_result(first_result),
        .results(result_data)
    );
endmodule
