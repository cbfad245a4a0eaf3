// Processing element: keeps a weight, passes activations to the right and sums down.
module ws_element #(
    parameter ACT_BITS = 8,
    parameter WEIGHT_BITS = 8,
    parameter SUM_BITS = 24,
    parameter USE_DSP = 1
) (
    input  wire                          clock,
    input  wire                          weight_shift,  // weights move down by one row
    input  wire signed [WEIGHT_BITS-1:0] weight_in,
    input  wire signed [ACT_BITS-1:0]    act_in,
    input  wire signed [SUM_BITS-1:0]    sum_in,
    output reg  signed [WEIGHT_BITS-1:0] weight_out,
    output reg  signed [ACT_BITS-1:0]    act_out,
    output reg  signed [SUM_BITS-1:0]    sum_out
);
    wire signed [ACT_BITS+WEIGHT_BITS-1:0] product;

    signed_product #(.A_BITS(ACT_BITS), .B_BITS(WEIGHT_BITS), .USE_DSP(USE_DSP)) multiplier (
        .a(act_in), .b(weight_out), .product(product)
    );

    always @(posedge clock) begin
        if (weight_shift) weight_out <= weight_in;
        act_out <= act_in;
        // Signed words extend when they are added.
        /* verilator lint_off WIDTH */
        sum_out <= sum_in + product;
        /* verilator lint_on WIDTH */
    end
endmodule

// ROWS x COLUMNS processing elements: weights and sums enter at the top, activations on the left.
module ws_grid #(
    parameter ROWS = 4,
    parameter COLUMNS = 4,
    parameter ACT_BITS = 8,
    parameter WEIGHT_BITS = 8,
    parameter SUM_BITS = 24,
    parameter USE_DSP = 1
) (
    input  wire                           clock,
    input  wire                           weight_shift,
    input  wire [COLUMNS*WEIGHT_BITS-1:0] weights,
    input  wire [ROWS*ACT_BITS-1:0]       acts,
    input  wire [COLUMNS*SUM_BITS-1:0]    sums_in,
    output wire [COLUMNS*SUM_BITS-1:0]    sums_out
);
    wire [WEIGHT_BITS-1:0] weight [0:(ROWS+1)*COLUMNS-1];
    wire [SUM_BITS-1:0]    sum    [0:(ROWS+1)*COLUMNS-1];
    wire [ACT_BITS-1:0]    act    [0:ROWS*(COLUMNS+1)-1];

    genvar r, c;
    generate
        for (c = 0; c < COLUMNS; c = c + 1) begin : column_end
            assign weight[c] = weights[c*WEIGHT_BITS +: WEIGHT_BITS];
            assign sum[c] = sums_in[c*SUM_BITS +: SUM_BITS];
            assign sums_out[c*SUM_BITS +: SUM_BITS] = sum[ROWS*COLUMNS+c];
        end
        for (r = 0; r < ROWS; r = r + 1) begin : row
            assign act[r*(COLUMNS+1)] = acts[r*ACT_BITS +: ACT_BITS];
            for (c = 0; c < COLUMNS; c = c + 1) begin : column
                ws_element #(
                    .ACT_BITS(ACT_BITS), .WEIGHT_BITS(WEIGHT_BITS), .SUM_BITS(SUM_BITS),
                    .USE_DSP(USE_DSP)
                ) element (
                    .clock(clock),
                    .weight_shift(weight_shift),
                    .weight_in(weight[r*COLUMNS+c]),
                    .act_in(act[r*(COLUMNS+1)+c]),
                    .sum_in(sum[r*COLUMNS+c]),
                    .weight_out(weight[(r+1)*COLUMNS+c]),
                    .act_out(act[r*(COLUMNS+1)+c+1]),
                    .sum_out(sum[(r+1)*COLUMNS+c])
                );
            end
        end
    endgenerate
endmodule

// Walks through the folds of a product: inner folds first, then the next columns.
module ws_control #(
    parameter ROWS = 4,
    parameter COLUMNS = 4,
    parameter ADDRESS_BITS = 16
) (
    input  wire                    clock,
    input  wire                    reset,
    input  wire                    start,         // with the sizes of the product
    input  wire [ADDRESS_BITS-1:0] row_count,
    input  wire [ADDRESS_BITS-1:0] inner_folds,
    input  wire [ADDRESS_BITS-1:0] column_folds,
    input  wire                    result_valid,  // of column 0
    output wire                    weight_read,
    output reg  [ADDRESS_BITS-1:0] weight_address,
    output wire                    act_read,      // of row 0, and of the sums of column 0
    output reg  [ADDRESS_BITS-1:0] act_address,
    output reg  [ADDRESS_BITS-1:0] sum_address,
    output reg                     sum_first,     // first fold of these columns
    output reg  [ADDRESS_BITS-1:0] result_address,
    output reg                     done
);
    localparam IDLE = 3'd0, LOAD = 3'd1, STREAM = 3'd2, DRAIN = 3'd3, FINISH = 3'd4;
    localparam DRAIN_STEPS = ROWS + COLUMNS - 2;
    localparam LATENCY = 2;  // of a memory and of the last processing element

    reg [2:0]              state;
    reg [ADDRESS_BITS-1:0] step;         // left in this state
    reg [ADDRESS_BITS-1:0] inner_left;   // folds after this one
    reg [ADDRESS_BITS-1:0] column_left;
    reg [ADDRESS_BITS-1:0] sum_base;     // first sum of these columns
    reg                    stream_starts;

    wire last_step = (step == 0);
    wire fold_ends = last_step && (state == DRAIN || (state == STREAM && DRAIN_STEPS == 0));

    assign weight_read = (state == LOAD);
    assign act_read = (state == STREAM);

    always @(posedge clock) begin
        done <= 1'b0;
        stream_starts <= (state == LOAD) && last_step;
        step <= step - 1'b1;
        if (weight_read) weight_address <= weight_address + 1'b1;
        if (act_read) act_address <= act_address + 1'b1;
        if (act_read) sum_address <= sum_address + 1'b1;
        if (stream_starts) result_address <= sum_base;
        else if (result_valid) result_address <= result_address + 1'b1;

        case (state)
            IDLE: if (start) begin
                state <= LOAD;
                step <= ROWS - 1;
                inner_left <= inner_folds - 1'b1;
                column_left <= column_folds - 1'b1;
                weight_address <= 0;
                act_address <= 0;
                sum_address <= 0;
                sum_base <= 0;
                sum_first <= 1'b1;
            end
            LOAD: if (last_step) begin
                state <= STREAM;
                step <= row_count - 1'b1;
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
            state <= LOAD;
            step <= ROWS - 1;
            sum_first <= 1'b0;
            if (inner_left != 0) begin
                inner_left <= inner_left - 1'b1;
                sum_address <= sum_base;
            end else if (column_left != 0) begin
                inner_left <= inner_folds - 1'b1;
                column_left <= column_left - 1'b1;
                act_address <= 0;
                sum_base <= sum_base + row_count;
                sum_address <= sum_base + row_count;
                sum_first <= 1'b1;
            end else begin
                state <= FINISH;
                step <= LATENCY - 1;
            end
        end

        if (reset) begin
            state <= IDLE;
            done <= 1'b0;
            stream_starts <= 1'b0;
        end
    end
endmodule

// The array with its control: one product from start to done.
module systolic_ws #(
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
    input  wire [ADDRESS_BITS-1:0]         row_count,
    input  wire [ADDRESS_BITS-1:0]         inner_folds,
    input  wire [ADDRESS_BITS-1:0]         column_folds,
    output wire                            done,
    // Weights, one memory: a word is a row of a fold, the last row of each fold first.
    output wire                            weight_read,
    output wire [ADDRESS_BITS-1:0]         weight_address,
    input  wire [COLUMNS*WEIGHT_BITS-1:0]  weight_data,
    // Activations, a memory per row of the array.
    output wire [ROWS-1:0]                 act_read,
    output wire [ROWS*ADDRESS_BITS-1:0]    act_address,
    input  wire [ROWS*ACT_BITS-1:0]        act_data,
    // Partial sums and results, a memory per column.
    output wire [COLUMNS-1:0]              sum_read,
    output wire [COLUMNS-1:0]              sum_first,
    output wire [COLUMNS*ADDRESS_BITS-1:0] sum_address,
    input  wire [COLUMNS*SUM_BITS-1:0]     sum_data,
    output wire [COLUMNS-1:0]              result_valid,
    output wire [COLUMNS*ADDRESS_BITS-1:0] result_address,
    output wire [COLUMNS*SUM_BITS-1:0]     result_data
);
    wire                    row_read;
    wire                    first;
    wire [ADDRESS_BITS-1:0] row_address;
    wire [ADDRESS_BITS-1:0] first_sum_address;
    wire [ADDRESS_BITS-1:0] first_result_address;
    reg                     weight_shift;
    reg                     act_valid;     // data of the last row are at the array
    reg                     first_result;  // a sum leaves column 0

    ws_control #(.ROWS(ROWS), .COLUMNS(COLUMNS), .ADDRESS_BITS(ADDRESS_BITS)) control (
        .clock(clock),
        .reset(reset),
        .start(start),
        .row_count(row_count),
        .inner_folds(inner_folds),
        .column_folds(column_folds),
        .result_valid(first_result),
        .weight_read(weight_read),
        .weight_address(weight_address),
        .act_read(row_read),
        .act_address(row_address),
        .sum_address(first_sum_address),
        .sum_first(first),
        .result_address(first_result_address),
        .done(done)
    );

    lane_skew #(.LANES(ROWS), .BITS(1)) row_reads (
        .clock(clock), .reset(reset), .head(row_read), .lanes(act_read)
    );
    lane_skew #(.LANES(ROWS), .BITS(ADDRESS_BITS)) row_addresses (
        .clock(clock), .reset(reset), .head(row_address), .lanes(act_address)
    );
    lane_skew #(.LANES(COLUMNS), .BITS(1)) sum_reads (
        .clock(clock), .reset(reset), .head(row_read), .lanes(sum_read)
    );
    lane_skew #(.LANES(COLUMNS), .BITS(1)) sum_firsts (
        .clock(clock), .reset(reset), .head(first), .lanes(sum_first)
    );
    lane_skew #(.LANES(COLUMNS), .BITS(ADDRESS_BITS)) sum_addresses (
        .clock(clock), .reset(reset), .head(first_sum_address), .lanes(sum_address)
    );
    lane_skew #(.LANES(COLUMNS), .BITS(1)) result_valids (
        .clock(clock), .reset(reset), .head(first_result), .lanes(result_valid)
    );
    lane_skew #(.LANES(COLUMNS), .BITS(ADDRESS_BITS)) result_addresses (
        .clock(clock), .reset(reset), .head(first_result_address), .lanes(result_address)
    );

    always @(posedge clock) begin
        weight_shift <= weight_read;
        act_valid <= act_read[ROWS-1];
        first_result <= act_valid;
        if (reset) begin
            weight_shift <= 1'b0;
            act_valid <= 1'b0;
            first_result <= 1'b0;
        end
    end

    ws_grid #(
        .ROWS(ROWS), .COLUMNS(COLUMNS), .ACT_BITS(ACT_BITS), .WEIGHT_BITS(WEIGHT_BITS),
        .SUM_BITS(SUM_BITS), .USE_DSP(USE_DSP)
    ) grid (
        .clock(clock),
        .weight_shift(weight_shift),
        .weights(weight_data),
        .acts(act_data),
        .sums_in(sum_data),
        .sums_out(result_data)
    );
endmodule
