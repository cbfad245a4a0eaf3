// Sum of TERMS signed numbers: a tree of adders of two, node i from nodes 2i+1 and 2i+2.
module adder_tree #(
    parameter TERMS = 9,
    parameter TERM_BITS = 9,
    parameter TOTAL_BITS = 13
) (
    input  wire        [TERMS*TERM_BITS-1:0] terms,
    output wire signed [TOTAL_BITS-1:0]      total
);
    // A node reads nodes of higher numbers: no loop, though all are in one array.
    /* verilator lint_off UNOPTFLAT */
    (* keep *)
    wire signed [TOTAL_BITS-1:0] node [0:2*TERMS-2];
    /* verilator lint_on UNOPTFLAT */

    genvar i;
    generate
        for (i = 0; i < TERMS; i = i + 1) begin : leaf
            wire signed [TERM_BITS-1:0] term = terms[i*TERM_BITS +: TERM_BITS];
            // Signed words extend when they are assigned.
            /* verilator lint_off WIDTH */
            assign node[TERMS-1+i] = term;
            /* verilator lint_on WIDTH */
        end
        for (i = 0; i < TERMS - 1; i = i + 1) begin : adder
            assign node[i] = node[2*i+1] + node[2*i+2];
        end
    endgenerate

    assign total = node[0];
endmodule

// One output lane: a select unit (+x, -x or 0) per tap, a register, the adder tree, a register.
module ternary_lane #(
    parameter TAPS = 9,
    parameter ACT_BITS = 8,
    parameter TREE_BITS = 13
) (
    input  wire                         clock,
    input  wire [2*TAPS-1:0]            digits,  // per tap: 01 adds, 11 subtracts, 00 skips
    input  wire [TAPS*ACT_BITS-1:0]     codes,
    input  wire [TAPS*(ACT_BITS+1)-1:0] negatives,
    output reg  signed [TREE_BITS-1:0]  sum
);
    reg  [TAPS*(ACT_BITS+1)-1:0]    selected;
    wire [TAPS*(ACT_BITS+1)-1:0]    choice;
    wire signed [TREE_BITS-1:0]     total;

    genvar i;
    generate
        for (i = 0; i < TAPS; i = i + 1) begin : unit
            wire signed [ACT_BITS-1:0] code = codes[i*ACT_BITS +: ACT_BITS];
            // Signed words extend when they are assigned.
            /* verilator lint_off WIDTH */
            wire signed [ACT_BITS:0]   plus = code;
            /* verilator lint_on WIDTH */
            wire signed [ACT_BITS:0]   minus = negatives[i*(ACT_BITS+1) +: ACT_BITS+1];
            assign choice[i*(ACT_BITS+1) +: ACT_BITS+1] =
                (digits[2*i +: 2] == 2'b01) ? plus :
                (digits[2*i +: 2] == 2'b11) ? minus : {(ACT_BITS+1){1'b0}};
        end
    endgenerate

    adder_tree #(.TERMS(TAPS), .TERM_BITS(ACT_BITS + 1), .TOTAL_BITS(TREE_BITS)) tree (
        .terms(selected), .total(total)
    );

    always @(posedge clock) begin
        selected <= choice;
        sum <= total;
    end
endmodule

// Walks through the blocks: fills the window, sweeps the positions, empties the pipeline, and
// loads the weights of the next block at the same time.
module ternary_control #(
    parameter WINDOW = 3,
    parameter LOAD_CYCLES = 9,
    parameter ADDRESS_BITS = 16,
    parameter SHIFT_BITS = 3
) (
    input  wire                           clock,
    input  wire                           reset,
    input  wire                           start,
    input  wire [ADDRESS_BITS-1:0]        block_count,
    input  wire [ADDRESS_BITS-1:0]        column_stride,
    output wire                           block_read,
    output reg  [ADDRESS_BITS-1:0]        block_address,
    input  wire [ADDRESS_BITS-1:0]        positions,
    input  wire [ADDRESS_BITS-1:0]        pitch,
    input  wire signed [ADDRESS_BITS-1:0] lead,
    input  wire [ADDRESS_BITS-1:0]        pixels,
    input  wire [ADDRESS_BITS-1:0]        group,
    input  wire [ADDRESS_BITS-1:0]        width,
    input  wire [SHIFT_BITS-1:0]          shift,
    input  wire                           opens,
    input  wire                           closes,
    output wire                           weight_read,
    output reg  [ADDRESS_BITS-1:0]        weight_address,
    output wire                           column_read,
    output reg  [ADDRESS_BITS-1:0]        column_address,
    output reg                            block_starts,   // its first column is at the window
    output reg                            swept_window,   // the window is at a position
    output reg                            sum_wanted,     // whose sum is kept
    output reg  [WINDOW-1:0]              live,           // its columns inside the feature map
    output reg  [ADDRESS_BITS-1:0]        sum_address,
    output reg  [ADDRESS_BITS-1:0]        sum_group,
    output reg  [SHIFT_BITS-1:0]          sum_shift,
    output reg                            sum_first,
    output reg                            sum_last,
    output reg                            done
);
    localparam IDLE = 3'd0, LOAD = 3'd1, FILL = 3'd2, SWEEP = 3'd3, DRAIN = 3'd4, FINISH = 3'd5;
    localparam PIPELINE = 2;  // the select and the sum register
    localparam LATENCY = 2;   // of a memory and of the accumulated sum

    reg [2:0]                     state;
    reg [ADDRESS_BITS-1:0]        step;        // left in this state
    reg [ADDRESS_BITS-1:0]        load_left;   // words of the next block's weights
    reg [ADDRESS_BITS-1:0]        blocks_left; // after this one
    reg [ADDRESS_BITS-1:0]        swept, row_pitch, row_pixels;
    reg [ADDRESS_BITS-1:0]        column, pixel, between, address, this_group;
    reg signed [ADDRESS_BITS-1:0] first_edge, edge_column;  // of the row under the window's left
    reg [SHIFT_BITS-1:0]          this_shift;
    reg                           this_first, this_last, first_cycle;

    wire last_step = (step == 0);
    wire loaded = (load_left == 0) || (load_left == 1);  // when this cycle is over
    wire idle_block = (state == DRAIN || state == LOAD) && last_step;
    wire begins = loaded && ((state == LOAD) || (idle_block && blocks_left != 0));
    wire row_ends = (column == row_pitch - 1'b1);
    wire wanted = (state == SWEEP) && (between == 0) && (pixel != row_pixels);

    assign weight_read = (load_left != 0);
    assign column_read = (state == FILL) || (state == SWEEP && !last_step);
    assign block_read = (state == IDLE && start) || first_cycle;

    integer i;
    always @(posedge clock) begin
        done <= 1'b0;
        first_cycle <= 1'b0;
        if (!last_step) step <= step - 1'b1;
        if (weight_read) begin
            load_left <= load_left - 1'b1;
            weight_address <= weight_address + 1'b1;
        end
        if (column_read) column_address <= column_address + 1'b1;
        if (block_read) block_address <= block_address + 1'b1;

        // What the window is asked when the column that is read now has arrived.
        block_starts <= first_cycle;
        swept_window <= (state == SWEEP);
        sum_wanted <= wanted;
        sum_address <= address;
        sum_group <= this_group;
        sum_shift <= this_shift;
        sum_first <= this_first;
        sum_last <= this_last;
        // Places are added and compared in 32 bits.
        /* verilator lint_off WIDTH */
        for (i = 0; i < WINDOW; i = i + 1)
            live[i] <= (edge_column + i >= 0)
                    && (edge_column + i < $signed({1'b0, row_pitch}));
        /* verilator lint_on WIDTH */

        if (state == SWEEP) begin
            if (wanted) begin
                address <= address + 1'b1;
                pixel <= pixel + 1'b1;
            end
            between <= (between == 0) ? column_stride - 1'b1 : between - 1'b1;
            column <= column + 1'b1;
            edge_column <= edge_column + 1'b1;
            if (row_ends) begin
                column <= 0;
                pixel <= 0;
                between <= 0;
                edge_column <= first_edge;
            end
        end

        case (state)
            IDLE: begin
                block_address <= start ? 1 : 0;
                if (start) begin
                    state <= LOAD;
                    step <= 0;
                    load_left <= LOAD_CYCLES;
                    blocks_left <= block_count;
                    weight_address <= 0;
                    column_address <= 0;
                end
            end
            FILL: if (last_step) begin
                state <= SWEEP;
                step <= swept - 1'b1;
            end
            SWEEP: if (last_step) begin
                state <= DRAIN;
                step <= PIPELINE - 1;
            end
            DRAIN: if (last_step && blocks_left == 0) begin
                state <= FINISH;
                step <= LATENCY - 1;
            end
            FINISH: if (last_step) begin
                state <= IDLE;
                done <= 1'b1;
                block_address <= 0;
            end
            default: ;
        endcase

        if (begins) begin
            state <= FILL;
            step <= width - 1'b1;
            first_cycle <= 1'b1;
            blocks_left <= blocks_left - 1'b1;
            if (blocks_left != 1) load_left <= LOAD_CYCLES;
            swept <= positions;
            row_pitch <= pitch;
            row_pixels <= pixels;
            first_edge <= lead;
            edge_column <= lead;
            column <= 0;
            pixel <= 0;
            between <= 0;
            address <= 0;
            this_group <= group;
            this_shift <= shift;
            this_first <= opens;
            this_last <= closes;
        end

        if (reset) begin
            state <= IDLE;
            step <= 0;
            load_left <= 0;
            block_address <= 0;
            swept_window <= 1'b0;
            sum_wanted <= 1'b0;
            done <= 1'b0;
        end
    end
endmodule

// The engine with its control: one layer from start to done.
module ternary_engine #(
    parameter OUTPUT_LANES = @OUTPUT_LANES,
    parameter INPUT_LANES = @INPUT_LANES,
    parameter WINDOW = @WINDOW,
    parameter ACT_BITS = @ACT_BITS,
    parameter SUM_BITS = @SUM_BITS,
    parameter LOAD_CYCLES = @LOAD_CYCLES,
    parameter SHIFT_BITS = @SHIFT_BITS,
    parameter ADDRESS_BITS = @ADDRESS_BITS,
    parameter TAPS = INPUT_LANES * WINDOW * WINDOW,
    parameter UNITS = OUTPUT_LANES * TAPS,
    parameter LOAD_UNITS = (UNITS + LOAD_CYCLES - 1) / LOAD_CYCLES,
    parameter BLOCK_BITS = 6 * ADDRESS_BITS + SHIFT_BITS + 2
) (
    input  wire                                  clock,
    input  wire                                  reset,
    input  wire                                  start,
    input  wire [ADDRESS_BITS-1:0]               block_count,
    input  wire [ADDRESS_BITS-1:0]               column_stride,
    input  wire signed [ACT_BITS-1:0]            zero_point,
    output wire                                  done,
    // Blocks, in order: {closes, opens, shift, width, group, pixels, lead, pitch, positions}.
    output wire                                  block_read,
    output wire [ADDRESS_BITS-1:0]               block_address,
    input  wire [BLOCK_BITS-1:0]                 block_data,
    // Digits of the select units, LOAD_UNITS a word.
    output wire                                  weight_read,
    output wire [ADDRESS_BITS-1:0]               weight_address,
    input  wire [2*LOAD_UNITS-1:0]               weight_data,
    // Row banks: a column of WINDOW codes for every input lane, in the order of the stream.
    output wire                                  column_read,
    output wire [ADDRESS_BITS-1:0]               column_address,
    input  wire [INPUT_LANES*WINDOW*ACT_BITS-1:0] column_data,
    // Accumulators: the sums before; where sum_first is set, the biases of sum_group.
    output wire                                  sum_read,
    output wire                                  sum_first,
    output wire [ADDRESS_BITS-1:0]               sum_group,
    output wire [ADDRESS_BITS-1:0]               sum_address,
    input  wire [OUTPUT_LANES*SUM_BITS-1:0]      sum_data,
    // A position has passed; between strides and beyond the end of a row without a sum.
    output reg                                   position_valid,
    // Sums after; they are results where result_last is set.
    output reg                                   result_valid,
    output reg                                   result_last,
    output reg  [ADDRESS_BITS-1:0]               result_address,
    output reg  [OUTPUT_LANES*SUM_BITS-1:0]      result_data
);
    localparam TREE_BITS = ACT_BITS + 1 + $clog2(TAPS);

    wire                    block_starts, at_position, wanted, first, last;
    wire [WINDOW-1:0]       live;
    wire [ADDRESS_BITS-1:0] address, group;
    wire [SHIFT_BITS-1:0]   shift;

    ternary_control #(
        .WINDOW(WINDOW), .LOAD_CYCLES(LOAD_CYCLES), .ADDRESS_BITS(ADDRESS_BITS),
        .SHIFT_BITS(SHIFT_BITS)
    ) control (
        .clock(clock),
        .reset(reset),
        .start(start),
        .block_count(block_count),
        .column_stride(column_stride),
        .block_read(block_read),
        .block_address(block_address),
        .positions(block_data[0 +: ADDRESS_BITS]),
        .pitch(block_data[ADDRESS_BITS +: ADDRESS_BITS]),
        .lead(block_data[2*ADDRESS_BITS +: ADDRESS_BITS]),
        .pixels(block_data[3*ADDRESS_BITS +: ADDRESS_BITS]),
        .group(block_data[4*ADDRESS_BITS +: ADDRESS_BITS]),
        .width(block_data[5*ADDRESS_BITS +: ADDRESS_BITS]),
        .shift(block_data[6*ADDRESS_BITS +: SHIFT_BITS]),
        .opens(block_data[6*ADDRESS_BITS+SHIFT_BITS]),
        .closes(block_data[6*ADDRESS_BITS+SHIFT_BITS+1]),
        .weight_read(weight_read),
        .weight_address(weight_address),
        .column_read(column_read),
        .column_address(column_address),
        .block_starts(block_starts),
        .swept_window(at_position),
        .sum_wanted(wanted),
        .live(live),
        .sum_address(address),
        .sum_group(group),
        .sum_shift(shift),
        .sum_first(first),
        .sum_last(last),
        .done(done)
    );

    // Weight registers, double: the next block's arrive while a block runs.
    reg  [2*UNITS-1:0]                  digits;
    reg  [2*LOAD_UNITS*LOAD_CYCLES-1:0] shadow;
    reg                                 weight_arrives, column_arrives;

    // The window: the newest column of codes in the highest place.
    reg  [INPUT_LANES*WINDOW*ACT_BITS-1:0] window [0:WINDOW-1];
    wire [TAPS*ACT_BITS-1:0]               codes;
    wire [TAPS*(ACT_BITS+1)-1:0]           negatives;

    integer k;
    always @(posedge clock) begin
        weight_arrives <= weight_read && !reset;
        column_arrives <= column_read && !reset;
        // What is shifted out of the registers is lost.
        /* verilator lint_off WIDTH */
        if (weight_arrives)
            shadow <= {weight_data, shadow} >> (2 * LOAD_UNITS);
        /* verilator lint_on WIDTH */
        if (block_starts) digits <= shadow[2*UNITS-1:0];
        if (column_arrives) begin
            for (k = 0; k < WINDOW - 1; k = k + 1) window[k] <= window[k+1];
            window[WINDOW-1] <= column_data;
        end
    end

    // Tap t of the window: input lane, row, column; outside the feature map it is zero_point.
    genvar t, m;
    generate
        for (t = 0; t < TAPS; t = t + 1) begin : tap
            wire signed [ACT_BITS-1:0] code =
                live[t % WINDOW] ? window[t % WINDOW][(t/WINDOW)*ACT_BITS +: ACT_BITS]
                                 : zero_point;
            wire signed [ACT_BITS:0] negative = -code;
            assign codes[t*ACT_BITS +: ACT_BITS] = code;
            assign negatives[t*(ACT_BITS+1) +: ACT_BITS+1] = negative;
        end
    endgenerate

    // What belongs to the sums in the two registers of the lanes.
    reg [1:0]              held_position, held_wanted, held_last;
    reg                    held_first;
    reg [ADDRESS_BITS-1:0] address_1, address_2, group_1;
    reg [SHIFT_BITS-1:0]   shift_1, shift_2;

    assign sum_read = held_wanted[0];
    assign sum_first = held_first;
    assign sum_group = group_1;
    assign sum_address = address_1;

    always @(posedge clock) begin
        held_position <= {held_position[0], at_position};
        held_wanted <= {held_wanted[0], wanted};
        held_first <= first;
        held_last <= {held_last[0], last};
        {address_2, address_1} <= {address_1, address};
        {shift_2, shift_1} <= {shift_1, shift};
        group_1 <= group;
        position_valid <= held_position[1];
        result_valid <= held_wanted[1];
        result_last <= held_last[1];
        result_address <= address_2;
        if (reset) begin
            held_position <= 2'b00;
            held_wanted <= 2'b00;
            position_valid <= 1'b0;
            result_valid <= 1'b0;
        end
    end

    generate
        for (m = 0; m < OUTPUT_LANES; m = m + 1) begin : lane
            wire signed [TREE_BITS-1:0] sum;
            wire signed [SUM_BITS-1:0]  sum_before = sum_data[m*SUM_BITS +: SUM_BITS];
            // Signed words extend when they are assigned.
            /* verilator lint_off WIDTH */
            wire signed [SUM_BITS-1:0]  widened = sum;
            /* verilator lint_on WIDTH */

            ternary_lane #(.TAPS(TAPS), .ACT_BITS(ACT_BITS), .TREE_BITS(TREE_BITS)) units (
                .clock(clock),
                .digits(digits[2*m*TAPS +: 2*TAPS]),
                .codes(codes),
                .negatives(negatives),
                .sum(sum)
            );

            always @(posedge clock)
                result_data[m*SUM_BITS +: SUM_BITS] <= sum_before + (widened <<< shift_2);
        end
    endgenerate
endmodule
